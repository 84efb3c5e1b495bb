"""ONNX, run by ONNX Runtime.

The official builds of ONNX Runtime report to their maker from 1.29 on unless they are told not to before they are
loaded. The user did not ask for that, so it is switched off here, ahead of the first import.
"""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
