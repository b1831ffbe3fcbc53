"""Names of patients: hidden in lines and errors, replaced by numbers; and a log of cases without them."""
