"""What the tools do, as functions: configs, training, testing, prediction.

Each tool parses arguments and calls one function of a module here, which returns what the tool
prints; tests and notebooks call them directly.
"""
