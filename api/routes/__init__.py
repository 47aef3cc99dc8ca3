"""The routes beside `/chat`: a module for each thing they are about."""
