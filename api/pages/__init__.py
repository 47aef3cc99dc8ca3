"""The pages: what people see of Naka, made on the server, with a small module of script where a page must move."""
