"""Is this checkpoint as a policy wants it, and no worse than its baseline? Policies, baselines, causes, JUnit and SARIF, pytest.

It reads documents; it measures nothing itself.
"""
