"""All GPU measurements in one command, and the tables of the pages made from their results."""
