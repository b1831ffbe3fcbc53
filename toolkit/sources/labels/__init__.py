"""Label values of masks: which class each stands for, and which classes a case's masks have."""
