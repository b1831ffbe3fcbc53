"""Speed of training: steps, data, several processes, beside other toolkits."""
