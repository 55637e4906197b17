"""How a critic is called: its gradient at points, its layers, and whether its rows are independent."""
