"""Inference servers: a bundle becomes a model of theirs, and what they answer is compared with the bundle. No torch.

One folder per server says what its files hold; `probe` asks any server that speaks the Open Inference Protocol.
"""

from exporter.servers.pack import Packed, PackRequest, pack
from exporter.servers.probe import Latency, Probed, ProbeRequest, probe

__all__ = ["Latency", "PackRequest", "Packed", "ProbeRequest", "Probed", "pack", "probe"]
