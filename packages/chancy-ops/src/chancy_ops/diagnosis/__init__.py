"""What is wrong with the installation."""
