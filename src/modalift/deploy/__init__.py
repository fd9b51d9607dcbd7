"""What is deployed: predictions of many recordings, frame-by-frame streaming, export to ONNX."""

from modalift.deploy.export import ExportReport, export_onnx
from modalift.deploy.predict import predict_many
from modalift.deploy.stream import Stream

__all__ = ["ExportReport", "Stream", "export_onnx", "predict_many"]
