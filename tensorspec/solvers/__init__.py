"""Solvers: each turns normal equations and constraints into the next factors."""
