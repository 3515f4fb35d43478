"""Pixels and ONNX: from the bytes of a sample to a template."""
