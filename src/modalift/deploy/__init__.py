"""What goes home: the bundle, its export to ONNX, its answers frame by frame."""
