"""What goes home: the bundle, its export to ONNX, its answers frame by frame."""

from modalift.deploy.bundle import Bundle, Prediction, Protocol, load, save_bundle
from modalift.deploy.export import ExportReport, export_onnx
from modalift.deploy.stream import Stream

__all__ = ["Bundle", "ExportReport", "Prediction", "Protocol", "Stream", "export_onnx", "load", "save_bundle"]
