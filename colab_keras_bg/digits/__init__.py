"""The built-in job: handwritten digits, from images that ship with us."""
