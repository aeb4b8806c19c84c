"""What a unit is: its protocol, its configuration, and the parts that units are made of."""
