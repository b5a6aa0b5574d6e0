"""Speed and memory, measured side by side with those we are compared with."""
