"""What ships a run to where it outlives the machine.

Imports no TensorFlow, Keras or JAX.
"""
