"""What is done to a trained model: one file a measurement, each with the responses that it gives."""

from ablate.measure import acting, openloop, plans, prediction, support, values

__all__ = ["acting", "openloop", "plans", "prediction", "support", "values"]
