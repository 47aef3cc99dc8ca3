"""The API's own description and its examples, generated from the schemas."""
