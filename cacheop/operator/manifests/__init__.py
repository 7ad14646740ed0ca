"""The desired objects of a Dataset, one module a concern. Pure."""
