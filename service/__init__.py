"""biodedup: one person, one registration."""

import os

# ONNX Runtime reports its use to its maker unless told not to, before it is imported: nothing may leave this machine
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
