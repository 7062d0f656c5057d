"""The command line: arguments in, words, tables and files out."""
