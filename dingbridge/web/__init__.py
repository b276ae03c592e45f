"""Health, readiness, metrics and pages."""
