"""OpenVINO: the program as OpenVINO's own files, run by its runtime."""
