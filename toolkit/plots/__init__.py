"""Pictures of data, trainings and evaluations as PNG files. matplotlib is imported by the modules in here and nowhere
else.
"""
