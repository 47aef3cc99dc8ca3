"""JSON routes beside `/chat`: they parse, call one service, and return its model."""
