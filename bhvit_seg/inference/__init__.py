"""Prediction: one predictor interface over torch and packed models."""
