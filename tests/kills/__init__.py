"""Verbs killed at random moments and run again: what comes out is what an undisturbed run makes."""
