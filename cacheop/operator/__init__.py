"""The operator: Datasets and DataLoads become workers, volumes, secrets and a truthful status."""
