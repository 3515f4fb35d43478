"""HTTP and JSON: one file per resource."""
