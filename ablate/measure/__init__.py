"""What is done to a trained model: one file a measurement, each with the responses that it gives."""
