"""Pictures of data, trainings and evaluations as PNG files; nothing else imports matplotlib."""
