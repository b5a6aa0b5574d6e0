"""The command line: flags to values to the layers below."""
