"""The OpenAPI description and its examples, generated from the schemas."""
