"""What goes on measuring on a device while nobody is attached: folders, jobs, the device's lock."""
