"""What every study of many trainings needs: one budget for all, runs in processes of their own, costs, statistics."""
