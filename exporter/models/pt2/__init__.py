"""Programs that `torch.export.save` wrote."""
