"""What training jobs said that they will read: fetched just ahead of use, kept by next use."""
