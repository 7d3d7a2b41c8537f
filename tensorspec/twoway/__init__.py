"""Methods of two modes that the field knows by name: each one call, with labelled results."""
