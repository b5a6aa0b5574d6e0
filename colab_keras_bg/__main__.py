"""`python -m colab_keras_bg` is the same program as `colab-keras-bg`."""

from colab_keras_bg.cli.main import console_entry

if __name__ == "__main__":
    console_entry()
