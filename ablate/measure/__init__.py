"""What is done to a trained model: one file a measurement, each with the responses that it gives.

Our own measurements are registered by the modules that the registry imports.
"""
