"""CT to district label map."""
