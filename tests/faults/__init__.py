"""Faults made on purpose, in numbers, and what became of them: `python -m tests.faults kills=200 seed=0`.

    bed.py        a prepared cache, commands in processes of their own, and the numbers they must end in
    campaign.py   cases by seed and number, progress, counts; page.py writes them down
    kills, damages, surroundings, lines, strangers, security, memory: one part each
"""
