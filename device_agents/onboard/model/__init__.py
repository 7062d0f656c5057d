"""A variant's model file, written from a template and widths without the onnx package."""
