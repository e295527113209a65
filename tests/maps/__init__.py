"""Tests of `lamella.maps`."""
