"""The models that ship in the package, and the data that they were held out from."""
