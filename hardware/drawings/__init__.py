"""Drawings that are made by a program, so that they cannot disagree with the settings."""
