//! The four Nantian kinds as typed data: validation, CRD YAML and status.
