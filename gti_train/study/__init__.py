"""Studies: stages that each leave a folder, run when what they depend on has changed."""
