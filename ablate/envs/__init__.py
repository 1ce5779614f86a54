"""Vectorised environments: linear-quadratic control, T-Maze, point mazes, locomotion."""
